"""Files of a project: settings, folders of a run, the metrics log, the clock."""
