"""What a run leaves behind for people.

Its files::

    run_files                 the names of a run's files
    run_log                   metrics and curves
    board                     where people watch runs: tensorboard_board, wandb_board, mlflow_board
    boards                    which of them a run writes to
    drawing, peak_memory      figures as files; the most memory held
"""
