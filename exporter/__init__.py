"""Complete, concurrent export of Livy Gateway session history from EMR Serverless Spark."""

__version__ = "0.1.0"
