"""The student: its trunk, its heads, its prompts.

Its files::

    build                     torchvision and timm by name
    photo_model               a student of photos: its losses, its answers
    heads, classifier         one head a teacher; what classifies, among which classes
    texts, centring           class texts; the teacher's centred space, and the rows that means are of
    prompts                   CoOp and CoCoOp
"""
