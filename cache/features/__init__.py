"""Feature stores: zarr v3, written unit by unit, and the tables that are joined from them."""
