"""Tests of copies at an object store, against a server that fails."""
