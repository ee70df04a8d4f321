"""Training. Read loop.py, then run.py: epochs and batches, then a step.

Its files::

    start                     what distill train calls
    chosen_run, default_recipe    what is left open is chosen: the recipe where none is named
    plan                      what a run would do, and how long
    loop, run                 batches to one student or several; a step of one
    beside, shared_batches    students beside each other, who fails, who goes on; one batch for all, its seeds
    session                   the parts of a run: data, model, optimiser; resuming
    resumed_settings          which settings a resumed run may have other than it began with
    ends                      what is done after the last step of an epoch, and of a run: its summary
    chosen_eval               the size and crop of a trained student, chosen on what was set aside
    epoch_sums, finite_guard  sums of an epoch; no NaN is saved
    optim, schedule           optimisers; the learning rate over a run
    mixup                     what a batch's images are mixed with
    trained_heads             heads on kept features, and the mean of several
    averages                  means of the weights: over the steps, with the first ones
    freezing                  what of a student stands still
    head_only, head           a head by ridge, or trained on the features of its trunk
    feature_files             those features, kept
    distributed               processes that share a batch
    run_folder, outputs_of_run    the files of a run
    stopping                  Ctrl-C and SIGTERM as a request
"""
