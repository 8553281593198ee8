"""The simulators: a specimen with a known truth and the microscope that looks at it."""
