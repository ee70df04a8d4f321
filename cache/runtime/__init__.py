"""How a program behaves: errors, files, locks, progress, devices, processes. Knows nothing of images."""
