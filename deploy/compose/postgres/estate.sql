-- Run once, by psql, when the volume of the estate's PostgreSQL is new: the hub and each site have a
-- user, who is no superuser, and databases of their own. The passwords come from files.
\set hub `cat /run/secrets/hub_password`
\set north `cat /run/secrets/north_password`
\set south `cat /run/secrets/south_password`
CREATE ROLE hub LOGIN PASSWORD :'hub';
CREATE ROLE north LOGIN PASSWORD :'north';
CREATE ROLE south LOGIN PASSWORD :'south';
CREATE DATABASE hub_history OWNER hub ENCODING 'UTF8' TEMPLATE template0;
CREATE DATABASE north_express OWNER north ENCODING 'UTF8' TEMPLATE template0;
CREATE DATABASE north_history OWNER north ENCODING 'UTF8' TEMPLATE template0;
CREATE DATABASE south_express OWNER south ENCODING 'UTF8' TEMPLATE template0;
CREATE DATABASE south_history OWNER south ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE hub_history, north_express, north_history, south_express, south_history
    FROM PUBLIC;
