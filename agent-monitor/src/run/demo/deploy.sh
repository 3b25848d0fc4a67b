#!/bin/sh
# A program that the demo agent may not run.
echo deployed > deployed.txt
