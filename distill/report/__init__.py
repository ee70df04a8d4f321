"""Reports of finished runs, from their folders alone: no cache, no data set, no teacher, no GPU.

Its files::

    collect, groups           run folders -> values; runs that differ in the seed alone
    tasks                     what photos and episodes are measured by
    statistics                tests of differences
    tables, charts, curves, calibration, pictures    the pieces of the page
    few_shot                  what runs have learnt from a few images
    page                      one HTML file, with the main table as Markdown and CSV beside it
    compare                   two runs side by side
"""
