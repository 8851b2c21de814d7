"""Conditions applied to decoded media."""
