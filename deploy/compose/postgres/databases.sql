-- Run once, by psql, when the volume of PostgreSQL is new: the user of the services, who is no
-- superuser, and its two databases. The password comes from a file; it is in no argument.
\set password `cat /run/secrets/imageinvoker_password`
CREATE ROLE imageinvoker LOGIN PASSWORD :'password';
CREATE DATABASE express OWNER imageinvoker ENCODING 'UTF8' TEMPLATE template0;
CREATE DATABASE history OWNER imageinvoker ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE express, history FROM PUBLIC;
