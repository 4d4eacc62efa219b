"""What a run is trained on, as Grain pipelines whose position can be saved."""
