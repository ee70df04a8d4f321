"""What is shipped: a folder with a student, class texts and a model card, and all that runs it without torch.

Its files::

    export, export_options, new_folder    makes the folder; it and what checks it alone need torch and the run
    models, onnx_files, int8_file, graph_preprocessing    weights, torch.export, ONNX in three precisions
    libraries, timm_student, timm_folder, open_clip_folder, weights_file    what open_clip and timm load
    tflite_file               what LiteRT loads
    qat, fake_quantisation    a copy fitted to 8 bits, in the roundings of its int8 file
    run_texts, add_texts      the class sets of a run; more of them
    check, check_photos, check_embeddings, check_loaded, check_episodes    each file compared with the student
    check_reject              "none of these", set and measured
    info, card, card_data, card_pictures, snippets    model.json, and the README beside it
    replace                   a new model in the place of another, all its files at once
    class_sets, model, episode_model    texts and graphs: images or frames -> embeddings -> answers
    vocabulary, vocabulary_rows    words to name images without candidates, small; their rows by the teacher
    push                      the folder to the Hugging Face hub
    nearest_images            training images shown beside an answer
    onnx_door                 the way to onnxruntime
    pictures, prepared        the pictures of any source, one after the other; decoded ahead of a model
    predict, predict_episodes    labels for them; for files of episodes
    embed, embedder, embedders, row_files    unit rows of any source, by what, and into what file
    serve, connections, app   the service: it listens; who is connected; what is asked
    docs_page, beside_teacher    what can be asked of it as a page; its teacher, asked as well
    admission, limits, batching, decoding, answers    one request at a time, and what each may cost
    web, web_runtime, templates/web    a page that does it all in a browser; onnxruntime-web, by its checksums
    bench                     latency, size and memory of each graph
    elsewhere, class_heads    a run judged zero-shot on images of any source; texts of their classes
"""
