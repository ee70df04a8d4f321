"""The student: its trunk, its heads, its prompts.

Its files::

    build                     torchvision and timm by name
    photo_model               a student of photos: its losses, its answers
    parts                     its trunk and its head
    stages, stage_maps        a head that reads every stage of the trunk
    trunk_features            what a head takes of images, and gives
    closed_form               a head by ridge, without training
    heads, classifier         one head a teacher; what classifies, among which classes
    prompts                   CoOp and CoCoOp
"""
