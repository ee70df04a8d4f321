"""How good a student is.

Its files::

    evaluate                  the one evaluator, of students and teachers
    teachers                  the teachers of a cache, by its rows alone
    model, trained_run, open_run    a trained student, judged; opened again
    judged_classes            whether it can tell the classes of some splits
    space, space_of_split     how close its embeddings are to the teacher's
    calibration, calibration_of_run    the temperature of its probabilities, and how far they are off
    rejection                 when an image is of nothing that was asked for
    outputs                   what it says of every test image, kept
"""
