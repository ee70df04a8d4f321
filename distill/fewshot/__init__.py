"""A few images of every OOD class.

Its files::

    run                       what distill fewshot calls: draws and their table
    finetune                  trained with the support, as the paper does
    retrieval                 judged with the teacher's rows of the support; nothing is trained
    project                   the last layer refitted to the support in closed form
    methods                   several of these side by side
    plot                      accuracy over shots
"""
