"""Plans a run before a chip is rented: the train step of a config, compiled for accelerators that need not be here."""
