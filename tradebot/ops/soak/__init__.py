"""The supervisor beside a running engine, and what it decides on."""
