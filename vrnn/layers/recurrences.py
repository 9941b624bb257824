"""The recurrent networks that `model.rnn=` chooses from: one line each."""

from vrnn.layers.recurrent import GRU, LSTM, Recurrence

__all__ = ["RECURRENCES"]

RECURRENCES: dict[str, type[Recurrence]] = {
    "lstm": LSTM,
    "gru": GRU,
}
