"""What the proof on a real cluster uses: kubectl and helm, the chart as a release, runs, disturbances, measurements."""
