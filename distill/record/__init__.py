"""What a run leaves behind for people.

Its files::

    run_files                 the names of a run's files
    run_log, wandb_board      metrics, curves, TensorBoard; Weights & Biases
    drawing, peak_memory      figures as files; the most memory held
"""
