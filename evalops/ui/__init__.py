"""`evalops ui`: the project as pages, for one browser on this machine. This is the map; each module uses those above.

    door         who is let in: the token in the opened URL, the cookie it is exchanged for
    guard        what holds for every request and every answer: Host, session, Origin, headers
    frame        what pages share: the project, the templates, problems as pages
    listing      every evaluation with its plan, its last result and its trend
    overview     the first page
    pace         how far an evaluation is, and how fast
    underway     the apply of this server, and that of another process
    follow       the plan, its confirmation, and the apply as it goes
    review       one result, as the report has it, and downloads
    jobs         the jobs at a provider, and specs made of them
    create_upload, create_remote, create_dataset      a new evaluation, step 1: its dataset
    create_lists, create_fields, create_text, create_row, create_check, create_start, create_spec
                 step 2: fields, the spec they make, its text, a row rendered, problems; the page
    pages        the table of pages
    assets       the table of the files that pages load: style, scripts
    app          the application

To add a page: a module with `routes(site) -> list[Route]`, a line in `pages.PAGES` (with a `Section` where the
navigation shall have it), a template in `templates/` that extends `layout.html` (blocks `title`, `scripts`, `main`),
and for each script a line in `assets.FILES`. A handler is a plain function, which runs in a thread and may wait, or
async; it answers with `site.render(request, "NAME.html", **values)`. It reads through `site.project` and `site.api`,
anew each time. `server.problem.Problem` refuses with a status and a sentence, an `EvalopsError` becomes a page of its
diagnostics; both are JSON for a script that says `Accept: application/json`.

What changes anything is POST, PUT or DELETE: `guard` has seen to it that no other site asks. There are no inline
scripts, handlers and style attributes: the policy forbids them. The look is `views/page/style.css`.
"""
