"""What a server's figures say: rates, times and alarms, for everything that shows them.

It gets what `stats` and `clients` have returned, asks no server, reads no file and draws nothing. The terminal
(`kvzmq top`), the page (`kvzmq dashboard`) and `kvzmq doctor` show the same numbers because they come from here.
"""
