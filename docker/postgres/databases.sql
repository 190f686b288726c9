-- Run once, when the database's volume is new.
CREATE DATABASE prefect;
CREATE DATABASE mlflow;
