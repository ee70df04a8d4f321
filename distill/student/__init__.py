"""The student: its trunk, its heads, its prompts.

Its files::

    build                     a student by its name, with its first weights
    names, architecture       torchvision's, timm's, the hub's, one's own; what builds them
    first_weights             that they can be had, before any work
    own_code, weights_files   a Python file that the command names; weights, found in a file by what fits
    photo_model               a student of photos: its losses, its answers
    parts                     its trunk and its head
    stages, stage_maps        a head that reads every stage of the trunk
    trunk_features            what a head takes of images, and gives
    closed_form               a head by ridge, without training
    heads, classifier         one head a teacher; what classifies, among which classes
    phi_s                     a teacher's rows standardised by one scalar
    texts, centring           class texts; the teacher's centred space, and the rows that means are of
    prompts                   CoOp and CoCoOp
"""
