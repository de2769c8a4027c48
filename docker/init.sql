-- Run once by the postgres image, as its superuser, on an empty volume. Two roles: the owner migrates, the service
-- reads and writes rows.
\getenv owner_password FACTORY_LOGS_OWNER_PASSWORD
\getenv app_password FACTORY_LOGS_APP_PASSWORD

CREATE ROLE factory_logs_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE factory_logs_app LOGIN PASSWORD :'app_password';

-- The owner of the database may create in its schema public.
ALTER DATABASE factory_logs OWNER TO factory_logs_owner;
REVOKE ALL ON DATABASE factory_logs FROM PUBLIC;
GRANT CONNECT ON DATABASE factory_logs TO factory_logs_app;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO factory_logs_app;
ALTER DEFAULT PRIVILEGES FOR ROLE factory_logs_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO factory_logs_app;
-- The service takes the ids of a batch with nextval() before it inserts.
ALTER DEFAULT PRIVILEGES FOR ROLE factory_logs_owner IN SCHEMA public
    GRANT USAGE ON SEQUENCES TO factory_logs_app;
