"""What a server's figures say: rates, times and alarms, for everything that shows them.

Pure: it gets what `stats` and `clients` have returned, asks nothing and draws nothing. The terminal (`kvzmq top`), the
page (`kvzmq dashboard`) and `kvzmq doctor` show the same numbers because they come from here.
"""
