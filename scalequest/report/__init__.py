"""The content of the report, one module per part. stages/report.py combines them and page.py renders them."""
