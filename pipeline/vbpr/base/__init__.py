"""What everything else stands on: errors, stopping, progress, ids, files of ours and how they are written. Uses nothing
of vbpr's."""
