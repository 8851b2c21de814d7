"""The synthetic demo corpus and the small random encoders that go with it."""
