"""Reports of finished runs, from their folders alone: no cache, no data set, no teacher, no GPU.

Its files::

    collect, groups           run folders -> values; runs that differ in the seed alone
    tasks                     what photos and episodes are measured by
    statistics                tests of differences
    differences, answer       every setting beside the baseline and the best; what that says, in sentences
    effects                   a grid: what each factor does, maps of two
    tables, difference_tables, costs    the tables of the page
    charts, curves, calibration, confusion, pictures    its charts and pictures
    few_shot                  what runs have learnt from a few images
    page                      one HTML file, with the main table as Markdown and CSV beside it
    compare                   two runs side by side, as the page has them
"""
