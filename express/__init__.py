"""The deployment server's database, over ODBC."""
