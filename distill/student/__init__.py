"""The student: its trunk, its heads, its prompts.

Its files::

    build                     torchvision and timm by name
    photo_model               a student of photos: its losses, its answers
    heads, classifier         one head a teacher; what classifies, among which classes
    parts                     which layers are the head, and which the trunk
    prompts                   CoOp and CoCoOp
"""
