"""The door for files of strangers: nothing that they hold is believed before it is compared with the file itself."""
