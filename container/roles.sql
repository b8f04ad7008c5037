-- The roles of compose.yaml, when its database is made: docs/postgresql.md says what each is for.
-- The image of PostgreSQL runs this in the database `forkpoint`, as its administrator.
\getenv owner_password OWNER_PASSWORD
\getenv service_password SERVICE_PASSWORD
create role forkpoint_owner login password :'owner_password';
create role forkpoint_service login password :'service_password';
alter database forkpoint owner to forkpoint_owner;
revoke connect, temporary on database forkpoint from public;
grant connect on database forkpoint to forkpoint_service;
create extension if not exists vector;
revoke all on schema public from public;
grant create, usage on schema public to forkpoint_owner;
grant usage on schema public to forkpoint_service;
alter default privileges for role forkpoint_owner revoke execute on functions from public;
alter default privileges for role forkpoint_owner in schema public
  grant select, insert, update, delete on tables to forkpoint_service;
alter default privileges for role forkpoint_owner in schema public
  grant execute on functions to forkpoint_service;
