"""What is shipped: a folder with a student, class texts and a model card, and all that runs it without torch.

Its files::

    export                    makes the folder; it and what checks it alone need torch and the run
    models, onnx_files, graph_preprocessing    weights, torch.export, ONNX in three precisions
    qat, fake_quantisation    a copy fitted to 8 bits, in the roundings of its int8 file
    run_texts, add_texts      the class sets of a run; more of them
    check, check_photos, check_episodes    each file compared with the student
    info, card                model.json, and the README beside it
    class_sets, model, episode_model    texts and graphs: images or frames -> embeddings -> answers
    neighbours                training images shown beside an answer
    onnx_door                 the way to onnxruntime
    predict, predict_episodes    labels for files
    serve, connections, app   the service: it listens; who is connected; what is asked
    admission, limits, batching, decoding, answers    one request at a time, and what each may cost
    bench                     latency, size and memory of each graph
    elsewhere, class_heads    a run judged zero-shot on images of any source; texts of their classes
"""
