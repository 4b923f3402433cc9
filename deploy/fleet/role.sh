#!/bin/sh
# Run once by PostgreSQL's image, when its volume is empty: a database for Darkroom, and a role that
# owns it and may make roles for other boxes, but is no superuser.
set -eu
psql --set ON_ERROR_STOP=1 --set password="$POSTGRES_PASSWORD" --username postgres <<'SQL'
CREATE ROLE darkroom LOGIN CREATEROLE PASSWORD :'password';
CREATE DATABASE darkroom OWNER darkroom;
SQL
