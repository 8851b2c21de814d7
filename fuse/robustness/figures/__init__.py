"""The robustness table in pictures: by condition, by level, and pairs of conditions."""
