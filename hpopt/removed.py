"""Names of the original that hpopt does not have, and what to use instead."""

_INSTEAD = {
    "createDummyOpt": "hpopt.join(study), or the files results.json and trials.csv in save_path",
    "get_current_status": "HpOpt.trials(), whose rows have a state",
    "get_previous_status": "hpopt.create(..., resume=True), and HpOpt.get_progress()",
    "get_status_path": "results.json in save_path",
    "get_trial_path": "trials.csv in save_path",
    "get_best_score": "HpOpt.trials(), whose rows have a score",
    "get_best_score_with_num_imgs": "HpOpt.trials(), whose rows have a score and a step",
    "load_json": "json.load(open(...))",
    "smbo": 'hpopt.create(..., search_alg="bayes_opt"); isinstance(x, hpopt.HpOpt)',
    "asha": 'hpopt.create(..., search_alg="asha"); isinstance(x, hpopt.HpOpt)',
    "hyperband": 'hpopt.create(..., search_alg="asha"); isinstance(x, hpopt.HpOpt)',
}


def replacement(name: str) -> str:
    """The end of an error message that says what to use instead of a name; "" if there is nothing to say."""
    return f": use {_INSTEAD[name]}" if name in _INSTEAD else ""
