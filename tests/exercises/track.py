"""Answers to the exercises of page 07, right and wrong, with the reply that each should get."""


def by_sorting(rows):
    found = sorted((row["val/loss"], row["_step"]) for row in rows if row.get("val/loss"))
    return found[0][1] if found else None


def missing_is_zero(rows):
    return min(rows, key=lambda row: row.get("val/loss", 0), default={"_step": None})["_step"]


def best_row(rows):
    rows = [row for row in rows if "val/loss" in row]
    return min(rows, key=lambda row: row["val/loss"], default=None)


def place(rows):
    return rows.index(best_row(rows))


def epoch(rows):
    return [row for row in rows if "val/loss" in row].index(best_row(rows))


def highest(rows):
    return max(rows, key=lambda row: row.get("val/loss", 0))["_step"]


def lowest_in_training(rows):
    return min(rows, key=lambda row: row["train/loss"])["_step"]


def none_forgotten(rows):
    return best_row(rows)["_step"]


def from_the_end(histograms):
    died = None
    for step in reversed(histograms):
        _, edges = histograms[step]
        if any(edges):
            break
        died = step
    return died


def zeros(histograms):
    return [step for step, (_, edges) in histograms.items() if not any(edges)]


def without_equal_numbers(histograms):
    died = None
    for step, (counts, _) in histograms.items():
        died = None if len(counts) > 1 else step if died is None else died
    return died


def by_the_lowest(histograms):
    dead = [step for step, (_, edges) in histograms.items() if edges[0] == 0]
    alive = [step for step, (_, edges) in histograms.items() if edges[0] != 0]
    return min((step for step in dead if step > max(alive, default=-1)), default=None)


def in_two_calls_of_a_row(run, train_step):
    for step in range(run.config.steps):
        lr = run.config.lr * (1 - step / run.config.steps)
        run.log({"train/loss": train_step(lr)}, commit=False)
        run.log({"train/lr": lr})


def with_the_number_of_the_step(run, train_step):
    for step in range(run.config.steps):
        lr = run.config.lr * (1 - step / run.config.steps)
        run.log({"train/loss": train_step(lr)}, step=step)
        run.log({"train/lr": lr}, step=step)


def trained(run, train_step, lr=None, falls=True, two_calls=False, kept=1, says=None):
    steps = run.config["steps"]
    for step in range(steps):
        rate = (lr or run.config["lr"]) * (1 - step / steps if falls else 1)
        row = {"train/loss": train_step(lr=rate), "train/lr": says or rate}
        if two_calls:
            for name, value in row.items():
                run.log({name: value})
        elif step % kept == 0:
            run.log(row)


def with_slip(**slip):
    return lambda run, train_step: trained(run, train_step, **slip)


def overwriting_the_config(run, train_step):
    run.config["lr"] = 0.2
    trained(run, train_step)


def loss_alone(run, train_step):
    for step in range(run.config.steps):
        run.log({"train/loss": train_step(run.config.lr * (1 - step / run.config.steps))})


def without_braces(run, train_step):
    run.log("train/loss", 0.1)


RIGHT = {
    "rows_of_a_run": [12.0],
    "best_step": [by_sorting],
    "died_at": [from_the_end],
    "mended_record": [trained, in_two_calls_of_a_row, with_the_number_of_the_step],
}
WRONG = {
    "rows_of_a_run": [
        (10, "called more often"),
        (20, "not called in every step"),
        (22, "A dict makes one row"),
        (11, "from step 0 on"),
        (2, "with `val/loss` alone"),
        (3, "Count the calls"),
    ],
    "best_step": [
        (missing_is_zero, "Missing is not zero"),
        (lambda rows: best_row(rows)["val/loss"], "the loss itself"),
        (best_row, "the whole row"),
        (place, "place in the list"),
        (epoch, "That is the epoch"),
        (highest, "There it was highest"),
        (lowest_in_training, "`train/loss` was lowest"),
        (lambda rows: [row["_step"] for row in rows if "val/loss" in row][-1], "the last step"),
        (lambda rows: min(row["val/loss"] for row in rows), "Your code raised KeyError"),
        (none_forgotten, "Your code raised TypeError"),
        (lambda rows: best_row(rows)["_step"] if best_row(rows) else 0, "`None` is wanted, not 0"),
        (lambda rows: "step 3", "the lowest `val/loss` is in step"),
    ],
    "died_at": [
        (lambda histograms: zeros(histograms)[0], "but it came back"),
        (lambda histograms: zeros(histograms)[-1], "It was zero before"),
        (lambda histograms: list(histograms).index(from_the_end(histograms)), "not its step"),
        (lambda histograms: histograms[from_the_end(histograms)], "Return its step"),
        (lambda histograms: from_the_end(histograms) or None, "It is zero in the last step"),
        (lambda histograms: from_the_end(histograms) or 0, "`None` is wanted, not 0"),
        (by_the_lowest, "`None` is wanted, not 19: it is alive in the end"),
        (without_equal_numbers, "it is zero for good from step 29 on, not 19"),
        (lambda histograms: len(zeros(histograms)), "it is zero for good from step 39 on, not 4"),
        (lambda histograms: histograms["step"], "Your code raised KeyError"),
    ],
    "mended_record": [
        (with_slip(lr=0.2, two_calls=True), "it is not read from the run"),
        (with_slip(two_calls=True), "4 steps leave 8 rows"),
        (with_slip(lr=0.2), "the first step uses lr=0.2"),
        (with_slip(falls=False), "`lr` does not fall"),
        (with_slip(lr=0.3), "use the wrong `lr`"),
        (with_slip(kept=2), "only 2 of 4 steps leave a row"),
        (with_slip(says=0.1), "row 1 says loss"),
        (overwriting_the_config, "Leave it as it is"),
        (loss_alone, "has only train/loss"),
        (without_braces, "Your code raised TypeError"),
        (lambda run, train_step: run.log(train_step(run.config.lr)), "log takes a dict, but gets"),
        (lambda run, train_step: run.config.epochs, "has lr, steps, but no epochs"),
        (lambda run, train_step: None, "it should take 4 steps, but takes 0"),
    ],
}
