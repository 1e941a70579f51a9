"""The loop learns, keeps what it has, goes on exactly where it stopped, and says what is wrong."""

import copy
import io
import math
import os
import pickle
import signal
import sys
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

from blitz_helpers import (
    DivergenceError,
    Evaluation,
    History,
    adam_step,
    evaluate,
    fit,
    momentum_step,
    sgd_step,
)

NUM_CLASSES = 3


@pytest.fixture
def dataset(generator):
    """Return 22 points around three corners, labelled by their corner."""
    labels = torch.arange(22) % NUM_CLASSES
    points = F.one_hot(labels, 4).float() + 0.1 * torch.randn(22, 4, generator=generator)
    return TensorDataset(points, labels)


def make_loader(dataset, batch_size=5):
    return DataLoader(dataset, batch_size, shuffle=True, generator=torch.Generator().manual_seed(1))


def make_model():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, NUM_CLASSES))


STEPS = {
    "sgd": lambda: partial(sgd_step, lr=0.1),
    "momentum": lambda: partial(momentum_step, velocities={}, lr=0.05),
    "adam": lambda: partial(adam_step, state={}, lr=0.01),
}


def weights(model):
    return torch.cat([w.detach().flatten() for w in model.parameters()])


class Log(list):
    """A run that keeps what is logged."""

    log = list.append


class Broken:
    """A loader that raises ``error`` in place of batch ``at``, counted over all epochs."""

    def __init__(self, batches, at, error):
        self.batches, self.at, self.error = list(batches), at, error

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for batch in self.batches:
            if self.at == 0:
                raise self.error
            self.at -= 1
            yield batch


def test_fit_moves_weights_exactly_as_the_loop_written_out_does(dataset):
    ours = make_model()
    theirs = copy.deepcopy(ours)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)

    torch.manual_seed(3)
    history = fit(ours, make_loader(dataset), partial(sgd_step, lr=0.1), epochs=3)
    torch.manual_seed(3)
    losses = []
    loader = make_loader(dataset)
    for _ in range(3):
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(theirs(inputs), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

    assert torch.equal(weights(ours), weights(theirs))
    assert history == History(tuple(losses), steps_per_epoch=5)


def test_a_learning_rate_that_falls_is_the_one_the_step_gets(dataset):
    seen = []

    def step(params, lr):
        seen.append(lr)

    fit(make_model(), make_loader(dataset), step, epochs=2, lr_schedule=lambda done: 1 - done)
    assert seen == pytest.approx([1 - k / 10 for k in range(10)])


def test_a_schedule_takes_the_place_of_the_lr_that_is_bound(dataset):
    runs = []
    for lr in (0.1, 123.0):
        model = make_model()
        fit(model, make_loader(dataset), partial(sgd_step, lr=lr), 1, lr_schedule=lambda _: 0.1)
        runs.append(weights(model))
    assert torch.equal(*runs)


@pytest.mark.parametrize("rule", STEPS)
def test_the_loss_falls_and_the_same_seed_gives_the_same_numbers(dataset, rule):
    histories = [
        fit(make_model(), make_loader(dataset), STEPS[rule](), epochs=30) for _ in range(2)
    ]
    assert histories[0] == histories[1]
    assert histories[0].epoch_losses[-1] < 0.7 * histories[0].epoch_losses[0]


def test_history_knows_its_epochs_and_shows_a_row_for_each(dataset):
    loader = make_loader(dataset)
    history = fit(make_model(), loader, STEPS["sgd"](), epochs=2, val_loader=loader)
    assert len(history.losses) == 10
    assert history.epochs == 2
    assert history.epoch_losses[1] == pytest.approx(sum(history.losses[5:]) / 5)
    assert len(history.val_losses) == len(history.val_accuracies) == 2
    lines = str(history).splitlines()
    assert lines[0].split() == ["epoch", "loss", "val", "loss", "val", "accuracy"]
    assert lines[-1].split() == [
        "2",
        f"{history.epoch_losses[1]:.4f}",
        f"{history.val_losses[1]:.4f}",
        f"{history.val_accuracies[1]:.2%}",
    ]
    assert history._repr_html_().count("<tr>") == 3


def test_validation_after_an_epoch_is_what_evaluate_gives_then(dataset):
    model, loader = make_model(), make_loader(dataset)
    history = fit(model, loader, STEPS["sgd"](), epochs=2, val_loader=DataLoader(dataset, 22))
    result = evaluate(model, DataLoader(dataset, 22))
    assert history.val_losses[-1] == result.loss
    assert history.val_accuracies[-1] == result.accuracy


def test_a_run_gets_each_step_once_and_the_evaluation_with_the_last_of_an_epoch(dataset):
    run = Log()
    loader = make_loader(dataset)
    history = fit(
        make_model(), loader, STEPS["sgd"](), 2, val_loader=loader, lr_schedule=lambda _: 0.1,
        run=run,
    )  # fmt: skip
    assert [row["train/loss"] for row in run] == list(history.losses)
    assert {row["train/lr"] for row in run} == {0.1}
    with_evaluation = [index for index, row in enumerate(run) if "val/loss" in row]
    assert with_evaluation == [4, 9]
    assert [run[index]["val/accuracy"] for index in with_evaluation] == list(history.val_accuracies)


def test_what_hooks_log_in_a_backward_joins_the_step_that_it_belongs_to(dataset):
    run, model, loader = Log(), make_model(), make_loader(dataset)
    rows_before = []
    first = next(iter(model.parameters()))
    first.register_hook(lambda _: rows_before.append(len(run)))
    fit(model, loader, STEPS["sgd"](), epochs=2, val_loader=loader, run=run)
    assert rows_before == list(range(10))


def test_fit_trains_in_training_mode_and_leaves_modes_as_they_were(dataset):
    model = make_model()
    model.eval()
    model[0].train()
    seen = []
    model[1].register_forward_hook(lambda module, *_: seen.append(module.training))
    fit(model, make_loader(dataset), STEPS["sgd"](), epochs=1, val_loader=make_loader(dataset))
    assert seen == [True] * 5 + [False] * 5
    assert [module.training for module in model.modules()] == [False, True, False, False, False]


@pytest.mark.parametrize("at", [0, 3, 5, 7])
def test_an_interrupted_training_keeps_the_steps_that_were_done(dataset, at):
    batches = list(make_loader(dataset))
    whole = fit(make_model(), batches, STEPS["sgd"](), epochs=2)
    model = make_model()
    before = weights(model)
    history = fit(model, Broken(batches, at, KeyboardInterrupt), STEPS["sgd"](), epochs=2)
    assert history.losses == whole.losses[:at]
    assert history.interrupted
    assert torch.equal(weights(model), before) == (at == 0)
    assert f"interrupted after {at} steps" in str(history)
    assert f"interrupted after {at} steps" in history._repr_html_()


@pytest.fixture
def interruptible():
    """A process started in the background may have been told to ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_signal_ends_training_and_keeps_the_steps_before_it(dataset):
    def step(params):
        sgd_step(params, lr=0.1)
        if len(seen) == 6:
            signal.raise_signal(signal.SIGINT)
        seen.append(1)

    seen = []
    history = fit(make_model(), make_loader(dataset), step, epochs=1000)
    assert history.interrupted
    assert len(history.losses) == 6


@pytest.mark.parametrize("rule", STEPS)
@pytest.mark.parametrize("sampler", ["loader", "sampler", "global"])
def test_training_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(
    dataset, tmp_path, rule, sampler
):
    def loader():
        generator = torch.Generator().manual_seed(1)
        if sampler == "sampler":
            return DataLoader(dataset, 5, sampler=RandomSampler(dataset, generator=generator))
        return DataLoader(
            dataset, 5, shuffle=True, generator=generator if sampler == "loader" else None
        )

    def train(epochs, at=-1, **files):
        batches = loader()
        model = make_model()
        step = STEPS[rule]()

        def counted(params, **settings):
            nonlocal at
            at -= 1
            if at == 0:
                raise KeyboardInterrupt
            step(params, **settings)

        stopping = partial(counted, **step.keywords) if at > 0 else step
        history = fit(
            model, batches, stopping, epochs, lr_schedule=lambda done: 0.1 * (1 - done),
            val_loader=DataLoader(dataset, 22), **files,
        )  # fmt: skip
        return model, history

    path = tmp_path / "made" / "on the way" / "digits.pt"
    expected_model, expected = train(epochs=4)
    _, stopped = train(epochs=4, at=13, checkpoint=path)
    assert stopped.interrupted
    model, history = train(epochs=4, resume_from=path, checkpoint=path)
    assert history == expected
    assert torch.equal(weights(model), weights(expected_model))
    assert [file.name for file in path.parent.iterdir()] == ["digits.pt"]


def test_a_finished_checkpoint_gives_its_model_and_history_back(dataset, tmp_path):
    model = make_model()
    path = tmp_path / "digits.pt"
    history = fit(model, make_loader(dataset), STEPS["sgd"](), 2, checkpoint=path)
    again = make_model()
    assert fit(again, make_loader(dataset), STEPS["sgd"](), 2, resume_from=path) == history
    assert torch.equal(weights(again), weights(model))


@pytest.fixture
def checkpoint(dataset, tmp_path):
    path = tmp_path / "digits.pt"
    fit(make_model(), make_loader(dataset), STEPS["momentum"](), 1, checkpoint=path)
    return path


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_a_truncated_checkpoint_is_refused_and_nothing_changes(dataset, checkpoint, keep):
    data = checkpoint.read_bytes()
    damaged = data[: int(keep * len(data))] if isinstance(keep, float) else data[:keep]
    checkpoint.write_bytes(damaged)
    model = make_model()
    before, random = weights(model), torch.get_rng_state()
    with pytest.raises(ValueError, match=r"digits\.pt is damaged, or was not written by fit"):
        fit(model, make_loader(dataset), STEPS["momentum"](), 2, resume_from=checkpoint)
    assert torch.equal(weights(model), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert checkpoint.read_bytes() == damaged


def test_a_file_that_runs_code_when_unpickled_is_refused(dataset, tmp_path):
    class Malicious:
        def __reduce__(self):
            return (print, ("this ran",))

    path = tmp_path / "bad.pt"
    torch.save(Malicious(), path)
    with pytest.raises(ValueError, match="damaged, or was not written by fit"):
        fit(make_model(), make_loader(dataset), STEPS["sgd"](), 2, resume_from=path)


def test_a_checkpoint_of_another_network_is_refused_and_nothing_changes(dataset, checkpoint):
    wider = nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, NUM_CLASSES))
    deeper = make_model().append(nn.Linear(3, NUM_CLASSES))
    for model, message in [
        (wider, r"0\.weight is \(6, 4\) there and \(7, 4\) here"),
        (deeper, r"4\.weight is missing there and \(3, 3\) here"),
    ]:
        before = weights(model)
        with pytest.raises(ValueError, match=message):
            fit(model, make_loader(dataset), STEPS["momentum"](), 2, resume_from=checkpoint)
        assert torch.equal(weights(model), before)


def test_a_checkpoint_of_another_rule_or_loader_is_refused(dataset, checkpoint):
    with pytest.raises(ValueError, match=r"remembers velocities .* step has state"):
        fit(make_model(), make_loader(dataset), STEPS["adam"](), 2, resume_from=checkpoint)
    loader = DataLoader(dataset, 5)
    with pytest.raises(ValueError, match=r"random states of loader\.generator, here are nothing"):
        fit(make_model(), loader, STEPS["momentum"](), 2, resume_from=checkpoint)
    loader = make_loader(dataset, batch_size=2)
    with pytest.raises(ValueError, match="5 batches an epoch, the loader has 11"):
        fit(make_model(), loader, STEPS["momentum"](), 2, resume_from=checkpoint)


def test_a_checkpoint_that_is_not_there_is_an_error_that_names_it(dataset, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fit(make_model(), make_loader(dataset), STEPS["sgd"](), 2, resume_from=tmp_path / "nowhere")


def test_a_checkpoint_that_cannot_be_written_is_found_out_before_training(dataset, tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "digits.pt"):
        model = make_model()
        before = weights(model)
        with pytest.raises(OSError, match=r"folder|exists|directory"):
            fit(model, make_loader(dataset), STEPS["sgd"](), 1, checkpoint=path)
        assert torch.equal(weights(model), before)


def test_a_checkpoint_is_written_beside_the_old_one_and_takes_its_name(dataset, checkpoint):
    old = checkpoint.stat().st_ino
    fit(make_model(), make_loader(dataset), STEPS["momentum"](), 1, checkpoint=checkpoint)
    assert checkpoint.stat().st_ino != old  # another file, not the old one overwritten
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_a_checkpoint_that_fails_to_be_written_leaves_the_old_one(dataset, checkpoint, monkeypatch):
    good = checkpoint.read_bytes()

    def half(_, file):
        file.write(b"half of a check")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="no space left"):
        fit(make_model(), make_loader(dataset), STEPS["momentum"](), 1, checkpoint=checkpoint)
    assert checkpoint.read_bytes() == good
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "3.weight", "3.bias"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_training_stops_at_the_step_where_a_parameter_went_bad_and_names_it(
    dataset, tmp_path, name, value
):
    model = make_model()
    seen = []

    def step(params):
        sgd_step(params, lr=0.1)
        seen.append(1)
        if len(seen) == 12:
            model.get_parameter(name).data.fill_(value)

    path = tmp_path / "digits.pt"
    model[1].p = 0.0  # or dropout could hide the weight for a step
    with pytest.raises(DivergenceError, match=rf"step 13: the loss is.* bad first is {name}\."):
        fit(model, make_loader(dataset), step, epochs=4, checkpoint=path)
    kept = torch.load(path, weights_only=True)
    assert len(kept["record"]["losses"]) == 10
    assert all(w.isfinite().all() for w in kept["model"].values())


def test_a_checkpoint_stays_where_it_was_named_if_the_training_changes_the_folder(
    dataset, tmp_path, monkeypatch
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    def step(params):
        os.chdir(tmp_path / "elsewhere")
        sgd_step(params, lr=0.1)

    fit(make_model(), make_loader(dataset), step, 2, checkpoint="net.pt")
    assert (tmp_path / "net.pt").exists()
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_checkpoint_may_have_the_longest_name_that_the_file_system_allows(dataset, tmp_path):
    path = tmp_path / ("n" * 252 + ".pt")
    fit(make_model(), make_loader(dataset), STEPS["sgd"](), 1, checkpoint=path)
    assert path.exists()


def test_a_validation_that_lacks_the_first_epochs_is_refused_and_its_advice_works(
    dataset, tmp_path
):
    path, step, val = tmp_path / "net.pt", STEPS["sgd"](), list(make_loader(dataset))
    fit(make_model(), make_loader(dataset), step, 2, checkpoint=path)
    model = make_model()
    before = weights(model)
    with pytest.raises(ValueError, match=r"without a val_loader in some of its 2 epochs"):
        fit(model, make_loader(dataset), step, 3, resume_from=path, val_loader=val)
    assert torch.equal(weights(model), before)
    assert fit(model, make_loader(dataset), step, 3, resume_from=path).epochs == 3
    evaluate(model, val)


def test_a_divergence_names_the_checkpoint_to_go_on_from(dataset, tmp_path):
    def step(params):
        for w in params:
            if len(seen) == 6:
                w.data.fill_(math.nan)
        seen.append(1)

    seen = []
    path = tmp_path / "digits.pt"
    with pytest.raises(DivergenceError, match=r"digits\.pt is good, of epoch 1") as caught:
        fit(make_model(), make_loader(dataset), step, epochs=4, checkpoint=path)
    assert caught.value.step == 8
    assert caught.value.parameters == ("3.bias", "3.weight", "0.bias", "0.weight")
    assert len(caught.value.history.losses) == 7
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), vars(again)) == (str(caught.value), vars(caught.value))


def test_a_weight_that_goes_bad_in_the_last_step_of_an_epoch_reaches_no_checkpoint(
    dataset, tmp_path
):
    def step(params):
        seen.append(1)
        if len(seen) == 10:
            params[0].data[0, 0] = math.nan

    seen = []
    path = tmp_path / "digits.pt"
    with pytest.raises(
        DivergenceError,
        match=r"step 10: a parameter is no longer finite\. .* 0\.weight\. .*epoch 1",
    ):
        fit(make_model(), make_loader(dataset), step, epochs=3, checkpoint=path)
    assert len(torch.load(path, weights_only=True)["record"]["losses"]) == 5


def test_a_loss_that_is_bad_with_good_parameters_points_to_what_is_large_or_to_the_data(dataset):
    model = make_model()
    model[3].weight.data.fill_(1e38)
    model[1].p = 0.0
    with pytest.raises(DivergenceError, match=r"step 1: .*No parameter.*3\.weight is the largest"):
        fit(model, [(torch.full((2, 4), 1e3), torch.tensor([0, 1]))], STEPS["sgd"](), 1)
    bad = [(torch.full((2, 4), math.nan), torch.tensor([0, 1]))]
    with pytest.raises(DivergenceError, match="inputs of this batch are not: mend the data"):
        fit(make_model(), bad, STEPS["sgd"](), 1)


def test_data_that_are_not_finite_are_told_apart_from_an_lr_that_is_too_large(dataset, tmp_path):
    good = dataset[:]
    spoilt = (good[0].clone(), good[1])
    spoilt[0][3, 1] = math.nan
    with pytest.raises(DivergenceError, match=r"step 1: .*: mend the data\.$"):
        fit(make_model(), [spoilt], STEPS["sgd"](), 1)
    with pytest.raises(DivergenceError, match=r"No parameter .*Try a smaller lr\.$"):
        fit(make_model(), [good] * 9, partial(sgd_step, lr=1e20), 1)
    path = tmp_path / "digits.pt"
    fit(make_model(), [good], STEPS["sgd"](), 1, checkpoint=path)
    with pytest.raises(DivergenceError, match=r"mend the data\. .*epoch 1: resume from it\.$"):
        fit(make_model(), [spoilt], STEPS["sgd"](), 2, resume_from=path)


def test_infinite_data_are_named_also_where_the_loss_stayed_finite():
    """As with tanh, which makes 1 of infinity, and NaN of its gradient."""

    def make_tanh():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))

    batches = [(torch.tensor([[math.inf, 0.0]]), torch.tensor([0]))]
    batches += [(torch.ones(1, 2), torch.tensor([1]))]
    with pytest.raises(DivergenceError, match="inputs of the batch before were not finite"):
        fit(make_tanh(), batches, STEPS["sgd"](), 1)
    with pytest.raises(DivergenceError, match="inputs of the batch before were not finite"):
        fit(make_tanh(), batches[:1], STEPS["sgd"](), 1)


def test_weights_that_were_bad_from_the_start_are_said_to_be_so(dataset):
    model = make_model()
    model[3].bias.data[1] = math.nan
    with pytest.raises(DivergenceError, match=r"Before the first step 3\.bias held values"):
        fit(model, make_loader(dataset), STEPS["sgd"](), 1)


def test_a_refused_call_leaves_buffers_gradients_and_random_states_as_they_were(dataset):
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 3))
    model(dataset[:][0]).sum().backward()
    bad = TensorDataset(dataset.tensors[0], torch.full((22,), 7))
    for batches, step in [(make_loader(bad), "sgd"), (make_loader(dataset), "refusing")]:
        before = copy.deepcopy(model.state_dict())
        gradients = [w.grad.clone() for w in model.parameters()]
        drawn, order = torch.get_rng_state(), batches.generator.get_state()
        rule = STEPS["sgd"]() if step == "sgd" else partial(sgd_step, lr=-1)
        with pytest.raises(ValueError, match=r"out of range|lr must be above 0"):
            fit(model, batches, rule, 1)
        assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
        now = [w.grad for w in model.parameters()]
        assert all(torch.equal(a, b) for a, b in zip(gradients, now, strict=True))
        assert torch.equal(torch.get_rng_state(), drawn)
        assert torch.equal(batches.generator.get_state(), order)


@pytest.mark.parametrize("label", [-100, -1, NUM_CLASSES, 255])
def test_a_label_outside_the_classes_is_refused_before_its_step(dataset, label):
    batches = [(torch.ones(2, 4), torch.tensor([0, label]))]
    model = make_model()
    before = weights(model)
    message = f"label {label} is out of range: the model tells 3 classes apart, 0 to 2"
    with pytest.raises(ValueError, match=message):
        fit(model, batches, STEPS["sgd"](), 1)
    with pytest.raises(ValueError, match=message):
        evaluate(model, batches)
    assert torch.equal(weights(model), before)


INTEGERS = [
    getattr(torch, sign + size) for sign in ("int", "uint") for size in ("8", "16", "32", "64")
]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_labels_of_every_integer_type_train_and_count_alike(dtype):
    inputs, labels = torch.eye(20), torch.arange(20)
    result = evaluate(nn.Identity(), [(inputs, labels.to(dtype))])
    assert result.labels.dtype == torch.int64
    assert torch.equal(result.confusion_matrix, torch.eye(20).long())
    histories = []
    for kind in (dtype, torch.int64):
        torch.manual_seed(0)
        histories.append(fit(nn.Linear(20, 20), [(inputs, labels.to(kind))], STEPS["sgd"](), 2))
    assert histories[0] == histories[1]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_a_confusion_matrix_counts_right_whatever_type_its_numbers_have(dtype):
    answers = torch.arange(100).to(dtype)
    matrix = Evaluation(1.0, answers, answers, num_classes=100).confusion_matrix
    assert torch.equal(matrix, torch.eye(100).long())


@pytest.mark.parametrize(("answer", "label"), [(3, 0), (0, 3), (-1, 1)])
def test_a_confusion_matrix_refuses_a_label_outside_the_classes(answer, label):
    with pytest.raises(ValueError, match="where classes from 0 to 2 are expected"):
        _ = Evaluation(1.0, torch.tensor([answer]), torch.tensor([label]), 3).confusion_matrix


def test_a_model_whose_number_of_classes_changes_is_refused():
    batches = [(torch.eye(3), torch.arange(3)), (torch.eye(4), torch.arange(4))]
    with pytest.raises(ValueError, match="3 and 4 classes apart"):
        evaluate(nn.Identity(), batches)


@pytest.mark.parametrize(
    "labels",
    [
        torch.ones(2, 3),
        torch.ones(2),
        torch.ones(3).long(),
        torch.ones(2, 1).long(),
        torch.ones(2).bool(),
        torch.ones(2, dtype=torch.complex64),
    ],
)
def test_labels_that_are_not_a_class_number_each_are_refused(labels):
    with pytest.raises(ValueError, match="a class number for each of 2 samples"):
        evaluate(make_model(), [(torch.ones(2, 4), labels)])


def test_a_batch_without_samples_is_refused():
    with pytest.raises(ValueError, match="A batch holds no sample"):
        evaluate(make_model(), [(torch.ones(0, 4), torch.ones(0).long())])


def test_a_model_without_logits_is_refused():
    with pytest.raises(ValueError, match=r"gives shape \(2, 2, 3\)"):
        evaluate(nn.Identity(), [(torch.ones(2, 2, 3), torch.ones(2).long())])

    class Several(nn.Module):
        def forward(self, x):
            return {"logits": x}

    with pytest.raises(ValueError, match="gives a dict, where logits"):
        evaluate(Several(), [(torch.eye(3), torch.arange(3))])


def test_a_step_that_is_no_function_is_refused_and_what_the_error_advises_works(dataset):
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = weights(model)
    for step in (optimizer, optimizer.step, torch.optim.SGD, None):
        with pytest.raises(TypeError, match=r"must be a function of the .* optimizer\.step\(\)"):
            fit(model, make_loader(dataset), step, 1)
    assert torch.equal(weights(model), before)
    fit(model, make_loader(dataset), lambda params: optimizer.step(), 1)
    assert not torch.equal(weights(model), before)


@pytest.mark.parametrize("model", [nn.Linear, lambda x: x, None], ids=["class", "function", "None"])
def test_something_else_than_a_model_is_refused(dataset, model):
    for train in (lambda: fit(model, [], STEPS["sgd"](), 1), lambda: evaluate(model, [])):
        with pytest.raises(TypeError, match=r"model is a .*: expected an nn.Module"):
            train()


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("lr_schedule", 0.1, "lr_schedule is a float: expected a function of the finished"),
        ("run", 3, "run is a int, which has no log method"),
    ],
)
def test_an_argument_of_a_wrong_kind_is_refused_before_the_first_step(
    dataset, argument, value, message
):
    model = make_model()
    before = weights(model)
    with pytest.raises(TypeError, match=message):
        fit(model, make_loader(dataset), sgd_step, 1, **{argument: value})
    assert torch.equal(weights(model), before)


@pytest.mark.parametrize("kind", ["complex", "bool", "meta"])
def test_answers_that_are_not_real_numbers_are_refused(kind):
    change = {
        "complex": lambda x: x.to(torch.complex64),
        "bool": torch.Tensor.bool,
        "meta": lambda x: x.to("meta"),
    }[kind]

    class Answers(nn.Module):
        def forward(self, x):
            return change(x)

    with pytest.raises(ValueError, match="where real numbers are expected"):
        evaluate(Answers(), [(torch.eye(3), torch.arange(3))])


def test_an_empty_loader_is_refused(dataset):
    empty = TensorDataset(torch.ones(0, 4), torch.ones(0).long())
    for loader in ([], DataLoader(empty), DataLoader(dataset, 50, drop_last=True)):
        with pytest.raises(ValueError, match="loader is empty"):
            fit(make_model(), loader, STEPS["sgd"](), 1)
        with pytest.raises(ValueError, match="loader is empty"):
            evaluate(make_model(), loader)
    model = make_model()
    before = weights(model)
    with pytest.raises(ValueError, match="The val_loader is empty"):
        fit(model, make_loader(dataset), STEPS["sgd"](), 1, val_loader=[])
    assert torch.equal(weights(model), before)


def test_a_loader_without_a_length_is_refused():
    with pytest.raises(TypeError, match="generator, which has no length"):
        fit(make_model(), (batch for batch in []), STEPS["sgd"](), 1)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.ones(4), torch.tensor(0))] * 8)


@pytest.mark.parametrize("name", ["loader", "val_loader"])
def test_a_data_loader_without_a_length_is_refused_before_the_first_step(dataset, name):
    model = make_model()
    before = weights(model)
    loaders = {"loader": make_loader(dataset)} | {name: DataLoader(Stream(), 4)}
    with pytest.raises(TypeError, match=f"{name} is a DataLoader, which has no length"):
        fit(model, step=STEPS["sgd"](), epochs=1, **loaders)
    assert torch.equal(weights(model), before)


def test_a_loader_that_gives_nothing_is_an_error_whatever_it_promises():
    class Empty(Broken):
        def __iter__(self):
            return iter(())

    with pytest.raises(ValueError, match="gave no batch in epoch 1, though its length"):
        fit(make_model(), Empty([1, 2], 0, None), STEPS["sgd"](), 1)
    with pytest.raises(ValueError, match=r"loader is empty.*though its length is 2"):
        evaluate(make_model(), Empty([1, 2], 0, None))


@pytest.mark.parametrize("batch", [torch.ones(2, 4), [torch.ones(2, 4)], {"x": 1}, ("ab", [0, 1])])
def test_a_batch_that_is_not_a_pair_is_refused(batch):
    with pytest.raises(TypeError, match=r"A batch must be a pair of tensors, \(inputs, labels\)"):
        evaluate(make_model(), [batch])


@pytest.mark.parametrize("epochs", [0, -1, 1.5, "3", True, None])
def test_a_wrong_number_of_epochs_is_refused(dataset, epochs):
    with pytest.raises(ValueError, match="must be a whole number of 1 or more"):
        fit(make_model(), make_loader(dataset), STEPS["sgd"](), epochs)


def test_epochs_may_be_a_whole_number_of_numpy(dataset):
    assert fit(make_model(), make_loader(dataset), STEPS["sgd"](), np.int64(1)).epochs == 1


def test_a_wrong_lr_is_refused_by_the_rule_and_nothing_changes(dataset):
    model = make_model()
    before = weights(model)
    with pytest.raises(ValueError, match="lr must be above 0"):
        fit(model, make_loader(dataset), partial(sgd_step, lr=-0.1), 1)
    assert torch.equal(weights(model), before)


def test_without_tqdm_the_error_names_the_extra(dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"needs tqdm.*pip install tqdm"):
        fit(make_model(), make_loader(dataset), STEPS["sgd"](), 1)


def test_evaluate_agrees_with_torch_over_all_samples_at_once(dataset):
    model = make_model()
    points, labels = dataset.tensors
    result = evaluate(model, DataLoader(dataset, batch_size=4))
    logits = model.eval()(points)
    assert result.loss == pytest.approx(F.cross_entropy(logits, labels).item())
    assert torch.equal(result.predictions, logits.argmax(1))
    assert torch.equal(result.labels, labels)
    assert result.accuracy == (logits.argmax(1) == labels).double().mean().item()
    assert result.misread.tolist() == [
        index for index in range(22) if logits[index].argmax() != labels[index]
    ]


def test_the_loss_of_a_model_in_half_precision_is_summed_in_more():
    labels = torch.ones(20_000, dtype=torch.int64)
    logits = torch.tensor([[10.0, 0.0]]).half().expand(20_000, 2)  # float16 ends at 65,504
    assert evaluate(nn.Identity(), [(logits, labels)]).loss == pytest.approx(10, rel=1e-4)


def test_the_confusion_matrix_counts_labels_down_and_predictions_across():
    logits = torch.eye(3)[[0, 1, 1, 2, 2, 2]]
    result = evaluate(nn.Identity(), [(logits, torch.tensor([0, 0, 1, 1, 1, 0]))])
    assert result.confusion_matrix.tolist() == [[1, 1, 1], [0, 1, 2], [0, 0, 0]]
    assert str(result).splitlines()[2].split() == ["0", "1", "1", "1", "33.3%"]
    assert str(result).splitlines()[-1].startswith("accuracy 33.33%, loss ")
    assert "accuracy 33.33%" in result._repr_html_()


def test_evaluate_leaves_modes_gradients_and_random_state_as_they_were(dataset):
    model = make_model()
    model[1].eval()
    modes, random = [module.training for module in model.modules()], torch.get_rng_state()
    evaluate(model, DataLoader(dataset, 4, generator=torch.Generator()))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(w.grad is None for w in model.parameters())


def test_a_log_file_gets_one_line_an_epoch(dataset, capsys):
    history = fit(make_model(), make_loader(dataset), STEPS["sgd"](), epochs=2)
    assert capsys.readouterr().out.splitlines() == [
        f"epoch {epoch} of 2: loss {loss:.4f}" for epoch, loss in enumerate(history.epoch_losses, 1)
    ]


def test_a_terminal_gets_a_bar_that_ends_in_a_line_without_times(dataset, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    fit(make_model(), make_loader(dataset), STEPS["sgd"](), epochs=2)
    *bar, last = terminal.getvalue().split("\r")
    assert "0%|" in bar[1]
    assert last == "10 of 10 steps\n"


class WriteOnly:
    """The stdout of some editors: no `isatty`, no `flush`."""

    def write(self, text):
        pass


@pytest.mark.parametrize("stdout", [None, WriteOnly(), "closed"])
def test_fit_trains_without_a_stdout(dataset, monkeypatch, stdout):
    expected = fit(make_model(), make_loader(dataset), STEPS["sgd"](), epochs=2)
    if stdout == "closed":
        stdout = io.StringIO()
        stdout.close()
    monkeypatch.setattr(sys, "stdout", stdout)
    history = fit(make_model(), make_loader(dataset), STEPS["sgd"](), epochs=2)
    monkeypatch.undo()
    assert history == expected
