"""Training, read from the top: ``loop`` (epochs, batches, save, stop), then ``run`` (a step).

start              one student from a cache: what ``distill train`` calls
session            everything a run needs, made once; its state, saved and brought back
shared_batches     an epoch's batches, made once for all students that take them
beside             students beside each other: who failed, who goes on, when all stop
ends, summary      how an epoch and a run end; outputs_of_run: what is kept for reports
run_folder         what is written, by the first of several processes
optim, seeds, epoch_sums, finite_guard, distributed, stopping    what a step and a stop need
"""
