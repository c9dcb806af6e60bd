"""What the report says, a module for each of its parts; stages/report.py puts them together, scalequest/report/page.py renders them."""
