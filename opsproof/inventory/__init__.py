"""From hosts.yml, or from variables alone, to an `Environment` and its targets.

loading      the order of it all
ansible      hosts.yml as Ansible's own commands read it
files        the file and line that a variable stands in
schema       what a host may say, validated
asked        the part of it that is policies: retention, limits, locks, keys, whom to tell
values       the kinds of values
slips        what is wrong with them, in words
hosts        one host -> one target
keeping      what a host asks for -> policies
storage      the store and the customer
variables    DATABASE_URL and PG*
application  the application's own setting of its database
"""
