"""What is asked about a report: its own parts and passes, and how their answers become one."""
