"""Many machines: predictions and folds over a Dask cluster."""
