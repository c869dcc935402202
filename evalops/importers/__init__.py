"""Evaluations that were written for another tool become specs. This is the map.

source          YAML and JSON files with the place of every value
files           files that another file refers to, and none outside its folder
draft           what an import makes before it is written, and what it says of the rest
nunjucks        promptfoo's templates in our words
references      OpenAI's `{{item.x}}` and `{{sample.output_text}}` in our words
literal         checks of texts as patterns
chat            messages as a system message and a question
promptfoo       a promptfoo config, in its parts: promptfoo_prompts, promptfoo_models (its providers), promptfoo_cases
                (its tests) with promptfoo_rows, promptfoo_checks (its assertions, each promptfoo_asked) with
                promptfoo_texts and promptfoo_judges, and promptfoo_specs, where they become one
openai_evals    an export of OpenAI Evals, in its parts: openai_export (its objects), openai_runs, openai_graders
writing         from files to files: the only one that reads and writes

All but the last are values in, values out. Nothing of a source is run, no variable of the environment is looked up, no
address is fetched, and no key is copied: only fields that are known by name ever reach a spec.
"""
