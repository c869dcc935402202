"""The engine behind a Together-compatible API. This is the map of the server; each module uses those above it.

    problem      what goes wrong, as the service's error envelope
    body, form   what comes in, within bounds
    file, files  uploaded and result files on disk
    fields       the fields of a request, one at a time
    request      from a request's parameters to an evaluation
    answer       from a job to the bodies and the result rows of the service
    work         the jobs: the engine in a thread of its own
    evaluate     one row judged for a client of Patronus
    routes       the endpoints of evaluations; those of files are in `file_routes`
    app          the application: keys, limits, and what holds for every request
    listen       the HTTP server around it: its socket and its signals

Nothing here judges a row: that is the engine's.
"""
