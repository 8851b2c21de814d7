"""Pictures of what a run rests on."""
