"""What is asked about a report: the user's own prompt, parts, passes, and how their answers become one."""
