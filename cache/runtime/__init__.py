"""How a program behaves; knows nothing of images.

Its files::

    folder_kinds              what a folder is that was given in the place of another kind
    errors, system_errors     what a user is told: one line, and what to do; what the system refuses
    memory_errors             memory that is full, and workers that end for want of it
    no_home                   what a container's user may lack, and libraries take for granted
    atomic_files              files appear whole or not at all; checksums
    json_values               JSON that anybody may have written, as our frozen values
    locks                     one writer a folder
    signals                   Ctrl-C and SIGTERM as exceptions
    progress, amounts         a bar on a terminal, lines in a log; bytes, seconds and rates in words
    devices, transfer         where to compute; copies to and from it
    gpus                      what a CUDA device is: its peak, its driver, what goes with it
    machine_limits            what one command may ask of a machine
    torchrun, distributed     processes side by side: their environment; how they wait for each other
    ray_pool                  tasks on a Ray cluster; the only importer of ray
    loader_workers            worker processes that decode
    tensor_handover           how they hand pictures over, beside /dev/shm
    downloads                 weights fetched from elsewhere, with size, rate and time left
    hdf5_safety, hub_models   files and models from elsewhere: what of them is opened, and what is not
    numbers_alone             of files that torch loads numbers alone
    own_code                  code of one's own, which runs only where a command names it
    torchvision_compat        torchvision, also beside a torch that it was not compiled for
"""
