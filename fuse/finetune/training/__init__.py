"""Steps, evaluation and the best epoch; and everything that is kept, so that an interrupted fine-tune goes on."""
